"""The tab in Locust's web page that shows where the time goes while a load runs."""
