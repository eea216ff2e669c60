"""One benchmark a stated target, with floors and peers in the same run."""
