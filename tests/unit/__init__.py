"""Tests of jobd's parts from inside, on virtual time wherever nothing real is needed."""
