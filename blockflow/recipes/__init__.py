"""Recipes: how do whole jobs of a field look on blockflow?"""
