"""What would not load, and why: findings from facts about the published versions and about what would load them.

`gathering` reads the facts from files, the machine and servers. All else here is pure.
"""

from triptych.serving.doctor.examination import examine
from triptych.serving.doctor.facts import Deployment, PublishedVersion
from triptych.serving.doctor.findings import Finding, worst

__all__ = ["Deployment", "Finding", "PublishedVersion", "examine", "worst"]
