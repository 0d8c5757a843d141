"""What each kind of model in Triton is asked, and how its answers read. Pure, all of them."""
