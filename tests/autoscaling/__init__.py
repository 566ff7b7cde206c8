"""The autoscaler on paper."""
