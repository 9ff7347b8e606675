"""What jobd runs while it is measured."""
