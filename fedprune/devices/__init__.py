"""Device profiles, budgets and the search that meets them, availability, links, the virtual clock."""
