"""A folder -> the files in it that are ready, and where they go afterwards."""
