"""The score bank over the pool, and what every unit and layer is worth to a device."""
