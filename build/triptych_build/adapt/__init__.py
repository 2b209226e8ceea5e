"""Any supported head into the contract: uint8 pixels in, the best candidates out."""
