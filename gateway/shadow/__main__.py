"""`python -m gateway.worker`: what the supervisor starts."""

from gateway.shadow.main import main

raise SystemExit(main())
