"""The commands of `triptych`, a module each: parse, one call, print.

`app` registers them, `options` has what they share, `console` says how they end.
"""
