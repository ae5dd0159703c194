"""`python -m gateway.worker`: what the supervisor starts."""

from gateway.process import end
from gateway.worker.main import main

end(main())
