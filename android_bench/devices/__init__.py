"""Which device is meant, what it is and whether it can be measured on."""
