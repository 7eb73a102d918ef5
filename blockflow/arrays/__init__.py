"""Arrays addressed by ROI."""
