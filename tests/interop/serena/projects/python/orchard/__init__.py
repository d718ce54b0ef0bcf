"""An orchard with a few trees."""
