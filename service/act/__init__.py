"""The role that acts: `commands` become calls to a platform, and receipts of what came of them."""
