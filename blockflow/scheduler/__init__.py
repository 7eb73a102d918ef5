"""What has happened to blocks, leases and workers: the pure scheduler, event in and instruction out."""
