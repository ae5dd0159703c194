// @elastic/mockotlpserver as its own command line starts it with `-o trace-json,metrics-json,logs-json`, but on free
// ports, which its log names.
const {MockOtlpServer} = require('@elastic/mockotlpserver');
const {JSONPrinter} = require('@elastic/mockotlpserver/lib/printers');
const luggite = require('@elastic/mockotlpserver/lib/luggite');

const HOST = '127.0.0.1';
const log = luggite.createLogger({name: 'mockotlpserver'});
new JSONPrinter(log, 0).subscribe();
new MockOtlpServer({
    log,
    services: ['http', 'grpc'],
    grpcHostname: HOST,
    grpcPort: 0,
    httpHostname: HOST,
    httpPort: 0,
}).start();
