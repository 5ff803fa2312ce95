"""Files of strangers, by the doors that they come through; see ``make fuzz``."""
