"""The comparison of ways to distil: its plan, its runs, its conditions and its tables."""
