import { TestWebSocketPage } from "./test_websocket_page.js";
import { WebSocketTestPage } from "./websocket_test_page.js";

/** Routes as routers know them: `createBrowserRouter([websocketTestRoute])`, or `<Route path={…} Component={…}>`. */
export const websocketTestRoute = Object.freeze({ path: "/websocket-test", Component: WebSocketTestPage });
export const testWebSocketRoute = Object.freeze({ path: "/test-websocket", Component: TestWebSocketPage });
