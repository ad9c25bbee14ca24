"""Hook implementations that ship with the plugin; they use nothing that others cannot."""
