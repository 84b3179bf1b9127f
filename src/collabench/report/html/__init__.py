"""The page of all profiles: one HTML file that needs no network, with its data, its style and its script inside."""
