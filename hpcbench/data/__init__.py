"""Datasets: where they are, what their files hold, and chats from their rows; for the login node and the worker alike."""
