"""What people and agents touch; made from the skills' definitions."""
