"""The commands of `triptych`, a module each: parse, one call, print. `app` registers them, `options` is what they share."""
