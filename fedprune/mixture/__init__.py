"""Features, mixture fit, wire format, and the one check through which every upload passes."""
