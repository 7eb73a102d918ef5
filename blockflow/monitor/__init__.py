"""What people see of a run. Readers only: nothing here decides anything."""
