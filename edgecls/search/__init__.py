"""Searching: further training images (``mine``), the best settings (``tune``)."""
