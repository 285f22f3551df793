"""What a device does and what the server does, as plain functions with no framework in them."""
