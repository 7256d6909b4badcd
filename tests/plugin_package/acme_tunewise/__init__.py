"""A package of somebody else's that brings a route, a candidate, a metric and a tracker."""
