"""Pictures of people, vehicles and other things that have an identity or a class."""
