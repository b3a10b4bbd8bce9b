"""From stored rows to curves: columns, positions on the axes, selectors' values, intervals."""
