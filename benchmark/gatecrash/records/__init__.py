"""What is stored: plans, victims, results, where they come from, and the store itself."""
