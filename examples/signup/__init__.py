"""A sign-up service whose welcome emails and uploaded files cannot get lost."""
