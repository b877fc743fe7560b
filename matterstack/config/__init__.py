"""What people write in files: profiles and workflows."""
