"""How the demo's detector was made: the board generator, the network, its training and evaluation."""
