"""What can be tried with a model beside explaining it."""
