"""`python -m gateway.shadow`: what the supervisor starts."""

from gateway.process import end
from gateway.shadow.main import main

end(main())
