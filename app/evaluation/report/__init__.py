"""What an evaluation found, as JSON, CSV, and a page. Measures nothing itself."""
