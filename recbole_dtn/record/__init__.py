"""What a run is: its folder, its record and its checkpoint."""
