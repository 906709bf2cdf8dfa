"""From the workers' journals into the books, each record exactly once; and what a dead worker left open."""
