"""What the commands of the command line do; ``metalab.cli`` says which there are."""
