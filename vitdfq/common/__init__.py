"""The ground floor: files, errors, names, the connection to the Hub."""
