"""Pictures of a sweep, each drawn twice from the same data: for print (matplotlib) and for the browser."""
