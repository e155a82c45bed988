"""What people see of a stream: its report, its picture, its trace and its callbacks."""
