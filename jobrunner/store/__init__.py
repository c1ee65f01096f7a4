"""Defines the contract of a store and implements it for each database."""
