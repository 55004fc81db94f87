"""What a model of each family is: a folder a family, which see no other."""
