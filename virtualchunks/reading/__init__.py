"""Reading: every byte that the library takes from an object, granted, conditional, checked."""
