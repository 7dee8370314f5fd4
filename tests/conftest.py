"""Fixtures for every folder of tests; makes `strategies` importable from all of them."""


def pytest_addoption(parser):
    parser.addoption("--accept", action="store_true", help="write golden files anew")
