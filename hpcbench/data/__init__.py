"""Datasets: where they are, what files hold, and chats from rows; for the login node and the worker alike."""
